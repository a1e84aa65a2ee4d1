//! Shared code of the tests: servers and databases, a lab with a job, writers and the comparison of their results, a
//! proxy.

pub mod bank; // accounts whose sum never changes, to check reads
pub mod bench; // a lab under load
pub mod checks; // the findings of `check`
pub mod cluster; // servers of every version, and databases
pub mod dependents; // a table with every kind of dependent object
pub mod events; // the table `events` and its plan
pub mod kills; // failpoints, and many cases side by side
pub mod lab; // a database, a plan, and commands on its job
pub mod load; // random transactions on a table and on its truth copy
pub mod oracle; // compares a table with its truth copy
pub mod process; // the binary as a process
pub mod proxy; // a network between pgstrata and its server
pub mod reads; // readers that check what they read
pub mod standby; // streaming standbys
pub mod tables; // the tables of the load
mod transaction; // one transaction of the load
pub mod wait; // waiting with a time limit
pub mod window; // a table between swap and finalize
pub mod writers; // concurrent writers
