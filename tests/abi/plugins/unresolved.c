/* Needs a symbol that nobody has. */
extern int no_such_function_anywhere(void);

__attribute__((visibility("default"))) int plugin_start(void)
{
    return no_such_function_anywhere();
}
