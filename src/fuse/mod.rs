//! The mount: a thin adapter between a view's reader and the kernel.
