"""The whole system, told as stories of what a user does and sees."""
