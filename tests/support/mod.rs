//! What the tests share: servers and databases, a lab with a job, writers with their oracle, a proxy.

pub mod bank; // accounts whose sum never changes, for the oracle of reads
pub mod bench; // a lab under load
pub mod checks; // the findings of `check`
pub mod cluster; // servers of every version, and databases
pub mod dependents; // a table with everything that may depend on one
pub mod events; // the table `events` and its plan
pub mod kills; // failpoints, and many cases side by side
pub mod lab; // a database, a plan, and commands on its job
pub mod load; // random transactions on a table and on its copy
pub mod oracle; // compares a table with its copy
pub mod process; // the real binary as a process
pub mod proxy; // a network between the tool and its server
pub mod reads; // readers that check what they read
pub mod standby; // replicas
pub mod tables; // the tables of the load
mod transaction; // one transaction of the load
pub mod wait; // waiting with a limit
pub mod window; // a table between its swap and the end of the job
pub mod writers; // applications at work
