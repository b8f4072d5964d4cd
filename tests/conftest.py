"""Settings of all tests."""

from hypothesis import settings

# The machines that run the tests are shared and slow at times: how long an example takes says nothing about the code.
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")
