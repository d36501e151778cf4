"""Sections of report.html, by what they are about."""
