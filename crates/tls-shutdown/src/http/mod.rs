//! HTTP as it is on the wire, followed through bytes that are cut anywhere. What a message means is for the server and the client
//! to say.

pub(crate) mod h1_scanner;
pub(crate) mod h2_scanner;
