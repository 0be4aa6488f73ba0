;; A plugin whose `get_output_ptr` and `get_output_len` point far outside its memory.
(module
  (memory (export "memory") 1)
  (func (export "process") (param i32 i32) (result i32) (i32.const 0))
  (func (export "get_output_ptr") (result i32) (i32.const 0xfffffff0))
  (func (export "get_output_len") (result i32) (i32.const 0x7fffffff)))
