"""A factory floor in virtual time: plant, devices, radio link and the truth about them."""
