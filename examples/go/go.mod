module supervm.example

go 1.19
