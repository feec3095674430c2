"""How an archive for ranges is made: read once, spooled, given to all who want the same."""
