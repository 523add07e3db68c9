//! A small, slow and independent opinion of what Weft must do with a packet, for the differential tests.

pub mod forwarding;
pub mod headers;
