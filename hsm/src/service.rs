//! The service: a pool of sessions on one token, and the socket that clients speak to.
//!
//! | part | owns |
//! |---|---|
//! | [`config`] | the validated configuration |
//! | `queue` | jobs that wait, in two lanes with limits |
//! | [`pool`] | workers, keeper and watchdog: the recovery ladder |
//! | [`server`] | the listening socket, connections, their buffers |
//! | [`process`] | privileges, memory, signals, restarting itself |
//!
//! The pool knows nothing of PKCS#11: it works on [`crate::token::Module`], so that the fake has
//! the same queues, deadlines and recovery as the real thing.

pub mod config;
mod meter;
pub mod pool;
pub mod process;
mod queue;
pub mod server;
