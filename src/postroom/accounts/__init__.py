"""The visible part: register, check your e-mail, confirm, log in. Uses postroom's public names only."""
