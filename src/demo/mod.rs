//! `pgstrata demo`: the main job on a private server, shown as it goes.

pub mod server;
/// x
/// # Errors
/// x
pub async fn run(_: bool, _: crate::report::Output) -> crate::error::Result<()> {
    Ok(())
}
