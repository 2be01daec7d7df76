//! A process that changes its working directory.
//!
//! This test has a process of its own, since the directory is that of the process.
#![cfg(unix)]

use std::{env, path::Path};

use tls_shutdown::server::UnixSocket;
use tls_shutdown_tests::serving::socket_path;

#[tokio::test]
async fn the_file_of_a_socket_is_removed_though_its_path_is_relative() {
    let path = socket_path();
    let (folder, name) = (path.parent().expect("a folder"), Path::new(path.file_name().expect("a name")));
    env::set_current_dir(folder).expect("a folder");
    let socket = UnixSocket::bind(name).await.expect("a free path");
    assert!(path.exists());
    env::set_current_dir("/").expect("a folder");
    assert_eq!(socket.path().file_name(), path.file_name());
    drop(socket);
    assert!(!path.exists());
}
