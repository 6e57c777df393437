"""An app that lets a worker die at one exact instruction; the site of ``perils.site`` installs it."""
