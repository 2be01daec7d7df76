//! What the process logs.

use std::{io, sync::Arc};

use tokio::sync::watch;

use crate::soon;

/// All that is logged in this process. A clone is another handle to the same log.
#[derive(Clone, Default)]
pub struct Log(Arc<watch::Sender<String>>);

impl Log {
    /// Records from now on what passes `filter`, on all threads: what one thread alone subscribes to, another may have switched off for
    /// all of them.
    ///
    /// # Panics
    ///
    /// If the process has a subscriber already.
    pub fn of_process(filter: &str) -> Self {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::set_global_default(subscriber).expect("the first subscriber of this process");
        tracing::callsite::rebuild_interest_cache();
        log
    }

    /// What was logged so far.
    pub fn text(&self) -> String {
        self.0.borrow().clone()
    }

    /// Waits until the log contains `text`.
    pub async fn until_contains(&self, text: &str) {
        let mut changes = self.0.subscribe();
        soon(changes.wait_for(|log| log.contains(text))).await.expect("the log is kept");
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send_modify(|log| log.push_str(&String::from_utf8_lossy(bytes)));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
