//! Pure: data types and decisions. Nothing here uses a clock, the network or a server.

pub mod backoff;
pub mod blueprint;
pub mod commands;
pub mod cutover;
pub mod dependent;
pub mod design;
pub mod difference;
pub mod explanation;
pub mod filling;
pub mod finding;
#[cfg(test)]
pub(crate) mod fixture;
pub mod grant;
pub mod ident;
pub mod inventory;
pub mod key;
pub mod ledger_gaps;
pub mod lent;
pub mod maintained;
pub mod number;
pub mod objects;
pub mod orphans;
pub mod own_schema;
pub mod pace;
pub mod partition;
pub mod plan_sql;
pub mod post_swap_diff;
pub mod remade_keys;
pub mod retyping;
pub mod sample;
pub mod shell;
pub mod sizer;
pub mod state;
pub mod status;
pub mod table;
pub mod verify_report;
