"""Who may do what: custom roles, groups, API keys, and what they give together."""
