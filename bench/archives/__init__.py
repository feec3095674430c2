"""Bench case `archives`: randomly generated image archives, whole and damaged, through the importer."""
