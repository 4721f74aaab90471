;; Prints lines of 1000 bytes until there are `total` bytes, then the line `end`.
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 64) "end\n")
  (func $print (param $at i32) (param $size i32)
    (i32.store (i32.const 0) (local.get $at))
    (i32.store (i32.const 4) (local.get $size))
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
  (func (export "flood") (param $total i32)
    (memory.fill (i32.const 1024) (i32.const 120) (i32.const 999))
    (i32.store8 (i32.const 2023) (i32.const 10))
    (loop $more
      (call $print (i32.const 1024) (i32.const 1000))
      (local.set $total (i32.sub (local.get $total) (i32.const 1000)))
      (br_if $more (i32.gt_s (local.get $total) (i32.const 0))))
    (call $print (i32.const 64) (i32.const 4))))
