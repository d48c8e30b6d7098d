"""Readers of published layouts, a file for each: the path of a data set in, a DataSet out."""
