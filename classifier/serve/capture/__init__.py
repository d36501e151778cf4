"""What a server was asked and what it answered, kept in Parquet files for those who ask for it."""
