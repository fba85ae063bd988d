/* Needs a relocation inside its code. */
__attribute__((visibility("default"))) int plugin_start(void)
{
    return 0;
}

__asm__(".section .text\n.globl keeper\n.hidden keeper\nkeeper:\n.quad plugin_start\n");
