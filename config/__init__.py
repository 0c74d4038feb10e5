"""What every room shares: units, errors, settings, scenarios, plants and network profiles."""
