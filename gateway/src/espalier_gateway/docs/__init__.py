"""The page at /docs: plain files, no outside network, no script in the page itself."""
