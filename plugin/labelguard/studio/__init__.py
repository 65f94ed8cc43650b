"""Running Label Studio with labelguard's page script in it, for small installs, the demo and the tests."""
