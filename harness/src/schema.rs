//! Whether a message fits a JSON Schema.

use serde_json::Value;

/// Where and why `message` does not fit `schema`; `None` if it does.
pub fn mismatch(schema: &Value, message: &Value) -> Option<String> {
    let validator = jsonschema::validator_for(schema).expect("the schema is one");
    let error = validator.validate(message).err()?;
    Some(format!("at {:?}: {error}", error.instance_path().to_string()))
}
