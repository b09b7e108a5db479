"""The drift report: one HTML file without scripts or requests, from what a drift run found."""
