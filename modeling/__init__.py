"""The PFD-IQA model: exactly the code that a Hub repository of it carries.

Every file is flat in this folder and imports only its siblings and the core dependencies, because
the Hub's loader of remote code copes with nothing else.
"""
