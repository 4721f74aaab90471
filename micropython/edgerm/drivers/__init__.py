"""One file for each kind of device, named by `driver` in the config. Your own are modules like these."""
