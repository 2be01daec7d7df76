//! Servers of other projects, with their own clients and handlers. `docs/integrations.md` promises more for them, which is tested in
//! `tests/tests/server/ways_to_serve`.

mod connect_info;
mod tonic;
