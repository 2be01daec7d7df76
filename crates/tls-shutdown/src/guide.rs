#![doc = include_str!("../guide/rustdoc-links.md")]
#![doc = include_str!("../guide/src/introduction.md")]

/// A page of the handbook. The definitions before its text lead its links to other pages here, where the book has files.
macro_rules! page {
    ($module:ident, $file:literal) => {
        #[doc = include_str!("../guide/rustdoc-links.md")]
        #[doc = include_str!($file)]
        pub mod $module {}
    };
}

page!(why, "../guide/src/why.md");
page!(quick_starts, "../guide/src/quick-starts.md");
page!(times, "../guide/src/times.md");
page!(load_balancers, "../guide/src/load-balancers.md");
page!(kubernetes, "../guide/src/kubernetes.md");
page!(systemd, "../guide/src/systemd.md");
page!(migrate, "../guide/src/migrate.md");
page!(openssl, "../guide/src/openssl.md");
page!(errors, "../guide/src/errors.md");
page!(endings, "../guide/src/endings.md");
page!(probe, "../guide/src/probe.md");
page!(observability, "../guide/src/observability.md");
page!(clients, "../guide/src/clients.md");
page!(unwrap, "../guide/src/unwrap.md");
page!(guarantees, "../guide/src/guarantees.md");
page!(security, "../guide/src/security.md");
page!(questions, "../guide/src/questions.md");
