;; A command that prints its arguments, each ended by a zero byte, on standard error,
;; and the value of its first environment variable on standard output.
(module
  (import "wasi_snapshot_preview1" "args_get" (func $args_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_get" (func $environ_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_sizes_get" (func $environ_sizes (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 4)
  (func $print (param $fd i32) (param $at i32) (param $size i32)
    (i32.store (i32.const 16) (local.get $at))
    (i32.store (i32.const 20) (local.get $size))
    (drop (call $fd_write (local.get $fd) (i32.const 16) (i32.const 1) (i32.const 24))))
  (func (export "_start") (local $at i32) (local $end i32)
    (drop (call $args_sizes (i32.const 0) (i32.const 4)))
    (drop (call $args_get (i32.const 1024) (i32.const 65536)))
    (call $print (i32.const 2) (i32.const 65536) (i32.load (i32.const 4)))
    (drop (call $environ_sizes (i32.const 0) (i32.const 4)))
    (if (i32.load (i32.const 0)) (then
      (drop (call $environ_get (i32.const 1024) (i32.const 131072)))
      (local.set $at (i32.const 131072))
      (loop $name
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (br_if $name (i32.ne (i32.load8_u (local.get $at)) (i32.const 61))))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (local.set $end (local.get $at))
      (loop $value
        (local.set $end (i32.add (local.get $end) (i32.const 1)))
        (br_if $value (i32.load8_u (local.get $end))))
      (call $print (i32.const 1) (local.get $at) (i32.sub (local.get $end) (local.get $at)))))))
