"""Templates of ``jackfield plugins new``: package data, one folder a kind, beside ``common``.

``{{name}}`` is what users type, ``{{module}}`` the package, ``{{class}}`` the plugin's class.
"""
