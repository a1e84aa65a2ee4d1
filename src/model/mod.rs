//! Pure: facts, bounds, ranges and controllers as data. Nothing here knows a clock, a socket or a server.

pub mod blueprint;
pub mod ident;
pub mod key;
pub mod sizer;
pub mod table;
pub mod watermark;
pub mod partition;
pub mod state;
