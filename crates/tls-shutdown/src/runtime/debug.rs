//! `Debug` of types that cannot derive it, or must not print all that they contain.

/// Implements `Debug` by some values: `debug_struct!({S: Debug} Stream<S>, |stream| { session: stream.session() })`.
macro_rules! debug_struct {
    ({$($generics:tt)*} $name:ident $(<$parameter:ident>)?, |$this:tt| {$($field:ident: $value:expr),* $(,)?}) => {
        impl<$($generics)*> ::std::fmt::Debug for $name $(<$parameter>)? {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                let $this = self;
                f.debug_struct(stringify!($name))$(.field(stringify!($field), &$value))*.finish_non_exhaustive()
            }
        }
    };
}

pub(crate) use debug_struct;
