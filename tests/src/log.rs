//! What the process logs.

use std::{
    io,
    sync::{Arc, Mutex},
};

use tokio::sync::watch;
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::soon;

/// All that is logged in this process. A clone is another handle to the same log.
#[derive(Clone, Default)]
pub struct Log {
    text: Arc<watch::Sender<String>>,
    broken: Broken,
}

/// The modules whose events make the log panic.
#[derive(Clone, Default)]
struct Broken(Arc<Mutex<Vec<&'static str>>>);

impl<S: Subscriber> Layer<S> for Broken {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let is_broken = self.0.lock().expect("no panic").contains(&event.metadata().target());
        assert!(!is_broken, "a log");
    }
}

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
            .finish()
            .with(log.broken.clone());
        tracing::subscriber::set_global_default(subscriber).expect("the first subscriber of this process");
        tracing::callsite::rebuild_interest_cache();
        log
    }

    /// What was logged so far.
    pub fn text(&self) -> String {
        self.text.borrow().clone()
    }

    /// From now on, panics at each event from one of `modules`, as `eprintln!` does when standard error is closed.
    pub fn panic_in(&self, modules: &[&'static str]) {
        *self.broken.0.lock().expect("no panic") = modules.to_vec();
    }

    /// Waits until the log contains `text`.
    pub async fn until_contains(&self, text: &str) {
        let mut changes = self.text.subscribe();
        soon(changes.wait_for(|log| log.contains(text))).await.expect("the log is kept");
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.send_modify(|log| log.push_str(&String::from_utf8_lossy(bytes)));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
