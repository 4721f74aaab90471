;; Ends with the exit code it is called with.
(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 1)
  (func (export "exits") (param i32) (call $proc_exit (local.get 0))))
