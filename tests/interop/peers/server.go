// Reads so many TLS 1.3 connections to their ends, one after the other, and closes each. Prints the port, then for each
// how much it read, whether the session was resumed, and how it ended.
package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"os"
	"strconv"
)

func main() {
	certificate, err := tls.LoadX509KeyPair(os.Args[1], os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	connections, err := strconv.Atoi(os.Args[3])
	if err != nil {
		log.Fatal(err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS13}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("port", listener.Addr())
	for ; connections > 0; connections-- {
		connection, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		received, err := io.Copy(io.Discard, connection)
		handshake := "full"
		if connection.(*tls.Conn).ConnectionState().DidResume {
			handshake = "resumed"
		}
		end := "closed"
		if err != nil {
			end = "failed"
		}
		connection.Close()
		fmt.Println("received", received, handshake, end)
	}
}
