section .data
text: db "Hello from assembly", 10
size: equ $ - text

section .text
global _start

_start:
    mov eax, 1          ; write
    mov edi, 1
    lea rsi, [rel text]
    mov edx, size
    syscall
    mov eax, 60         ; exit
    xor edi, edi
    syscall
