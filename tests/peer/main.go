// Command peer is a real etcd and its command line, in one program: what the
// tests compare Raft-KV with. The tests build it themselves, on demand.
package main

import (
	"fmt"
	"os"

	"go.etcd.io/etcd/etcdctl/v3/ctlv3"
	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() {
	if len(os.Args) < 2 {
		usage()
	}
	// Both programs read their arguments from the process's own.
	program := os.Args[1]
	os.Args = append([]string{program}, os.Args[2:]...)
	switch program {
	case "etcd":
		etcdmain.Main(os.Args)
	case "etcdctl":
		ctlv3.MustStart()
	default:
		usage()
	}
}

func usage() {
	fmt.Fprintln(os.Stderr, "usage: peer etcd|etcdctl [arguments]")
	os.Exit(2)
}
