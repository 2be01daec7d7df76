// Answers each request at once, without reading its body, and closes idle connections after a second. Prints the port.
package main

import (
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"time"
)

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("port", listener.Addr())
	answer := func(response http.ResponseWriter, request *http.Request) {
		if request.Method == http.MethodPost {
			response.WriteHeader(http.StatusRequestEntityTooLarge)
		}
		fmt.Fprint(response, "hello")
	}
	server := &http.Server{Handler: http.HandlerFunc(answer), IdleTimeout: time.Second}
	log.Fatal(server.ServeTLS(listener, os.Args[1], os.Args[2]))
}
