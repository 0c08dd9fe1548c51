"""Users, roles, sessions and tokens: who somebody is and what he may do."""
