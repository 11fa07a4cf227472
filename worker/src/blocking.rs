//! Blocking work, on threads that are for it.

/// Runs `act` on a thread that may block; a panic goes on here.
///
/// Not cancel-safe: `act` goes on when the future is dropped.
pub(crate) async fn blocking<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(act).await {
        Ok(done) => done,
        Err(stopped) => std::panic::resume_unwind(stopped.try_into_panic().unwrap_or_else(|stopped| {
            // Only a runtime that shuts down cancels such a task, and then nobody is here.
            Box::new(stopped.to_string())
        })),
    }
}
