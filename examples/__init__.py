"""Services that use this one."""
