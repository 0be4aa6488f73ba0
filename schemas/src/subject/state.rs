//! Where guests' values lie in the bucket of a tenant's state.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64_URL;

use crate::id::ModuleName;

/// The key of one guest value: the module's name, then the guest's key in a form that any bytes, even none, may take.
pub fn state_key(module: &ModuleName, key: &[u8]) -> String {
    format!("{module}.={}", BASE64_URL.encode(key))
}

/// The guest's key in the key of a guest value, if it is one.
pub fn guest_key(key: &str) -> Option<Vec<u8>> {
    let (_, encoded) = key.split_once(".=")?;
    BASE64_URL.decode(encoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn state_keys_never_leave_their_module(key in proptest::collection::vec(any::<u8>(), 0..128)) {
            let name: ModuleName = "counter".parse().unwrap();
            let built = state_key(&name, &key);
            prop_assert_eq!(built.split('.').count(), 2);
            prop_assert!(built.starts_with("counter.="));
            prop_assert_eq!(guest_key(&built), Some(key));
        }
    }
}
