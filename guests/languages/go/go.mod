module example/guests

go 1.25
