"""The example of a consumer: it keeps a contact for each user. Replace it by your own code."""
