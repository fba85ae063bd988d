/* An async iterator over pages of events: an event that is at hand costs no coroutine.
 *
 * Pages holds a page, a list, and which of its events is next. A subclass in Python says with a coroutine method, advance(), how to
 * get the next page and its first event. While there is an event at hand, __anext__ gives a Step: an awaitable that takes the event
 * when it is awaited, without suspending. A Step that finds the page empty then, because somebody took the rest meanwhile, goes on
 * as advance(). All run under the GIL.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

typedef struct {
    PyTypeObject *step;
    PyObject *advance; /* the method's name */
} module_state;

typedef struct {
    PyObject_HEAD
    PyObject *page;
    Py_ssize_t next;
    PyObject *spare; /* a Step that is used again and again, for as long as nobody else holds it */
} pages_object;

typedef struct {
    PyObject_HEAD
    pages_object *pages; /* NULL: it was awaited */
    PyObject *inner;     /* what it goes on as, where there was no event at hand */
} step_object;

static struct PyModuleDef definition;

/* ---- Step ----------------------------------------------------------------------------------------------------------------- */

/* Whether an event is at hand. -1: error. */
static int at_hand(pages_object *self)
{
    if (self->page == NULL || !PyList_Check(self->page)) {
        PyErr_SetString(PyExc_TypeError, "a page is a list of events");
        return -1;
    }
    return self->next >= 0 && self->next < PyList_GET_SIZE(self->page);
}

static void end(step_object *self)
{
    Py_CLEAR(self->inner);
    Py_CLEAR(self->pages);
}

static PySendResult step_send(PyObject *object, PyObject *value, PyObject **result)
{
    step_object *self = (step_object *)object;
    *result = NULL;
    if (self->pages == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "cannot await the same step of a subscription again");
        return PYGEN_ERROR;
    }
    if (self->inner == NULL) {
        pages_object *pages = self->pages;
        int ready = at_hand(pages);
        if (ready > 0) {
            *result = Py_NewRef(PyList_GET_ITEM(pages->page, pages->next));
            pages->next++;
            Py_CLEAR(self->pages);
            return PYGEN_RETURN;
        }
        module_state *state = ready < 0 ? NULL : PyType_GetModuleState(Py_TYPE(self));
        self->inner = state == NULL ? NULL : PyObject_CallMethodNoArgs((PyObject *)pages, state->advance);
        if (self->inner == NULL) {
            end(self);
            return PYGEN_ERROR;
        }
    }
    /* While it runs, nobody may end it from within. */
    PyObject *inner = Py_NewRef(self->inner);
    PySendResult how = PyIter_Send(inner, value, result);
    Py_DECREF(inner);
    if (how != PYGEN_NEXT)
        end(self);
    return how;
}

/* A result as an iterator gives it. */
static PyObject *as_iterator(PySendResult how, PyObject *result)
{
    if (how == PYGEN_RETURN) {
        PyObject *stop = PyObject_CallOneArg(PyExc_StopIteration, result);
        Py_CLEAR(result);
        if (stop != NULL) {
            PyErr_SetObject(PyExc_StopIteration, stop);
            Py_DECREF(stop);
        }
    }
    return result;
}

static PyObject *step_send_method(PyObject *self, PyObject *value)
{
    PyObject *result;
    PySendResult how = step_send(self, value, &result);
    return as_iterator(how, result);
}

static PyObject *step_iternext(PyObject *self)
{
    return step_send_method(self, Py_None);
}

/* Hands a call on to what it goes on as, and ends with it. */
static PyObject *hand_on(step_object *self, const char *name, PyObject *const *arguments, Py_ssize_t count)
{
    PyObject *inner = Py_NewRef(self->inner);
    PyObject *method = PyObject_GetAttrString(inner, name);
    PyObject *result = method == NULL ? NULL : PyObject_Vectorcall(method, arguments, (size_t)count, NULL);
    Py_XDECREF(method);
    Py_DECREF(inner);
    return result;
}

static PyObject *step_throw(PyObject *object, PyObject *const *arguments, Py_ssize_t count)
{
    step_object *self = (step_object *)object;
    if (count < 1 || count > 3) {
        PyErr_SetString(PyExc_TypeError, "throw takes an exception");
        return NULL;
    }
    if (self->inner != NULL) {
        PyObject *result = hand_on(self, "throw", arguments, count);
        if (result == NULL)
            end(self);
        return result;
    }
    end(self);
    PyObject *what = arguments[0];
    if (PyExceptionInstance_Check(what))
        PyErr_SetObject((PyObject *)Py_TYPE(what), what);
    else if (PyExceptionClass_Check(what))
        PyErr_SetObject(what, count > 1 ? arguments[1] : NULL);
    else
        PyErr_SetString(PyExc_TypeError, "throw takes an exception");
    return NULL;
}

static PyObject *step_close(PyObject *object, PyObject *nothing)
{
    step_object *self = (step_object *)object;
    PyObject *result = self->inner == NULL ? Py_NewRef(Py_None) : hand_on(self, "close", NULL, 0);
    end(self);
    return result;
}

static int step_traverse(PyObject *object, visitproc visit, void *arg)
{
    step_object *self = (step_object *)object;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->pages);
    Py_VISIT(self->inner);
    return 0;
}

static int step_clear(PyObject *object)
{
    end((step_object *)object);
    return 0;
}

static void step_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    end((step_object *)object);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyMethodDef step_methods[] = {
    {"send", step_send_method, METH_O, "As of a coroutine."},
    {"throw", (PyCFunction)(void (*)(void))step_throw, METH_FASTCALL, "As of a coroutine."},
    {"close", step_close, METH_NOARGS, "As of a coroutine."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot step_slots[] = {
    {Py_tp_doc, "What awaits the next event."},
    {Py_tp_dealloc, step_dealloc},
    {Py_tp_traverse, step_traverse},
    {Py_tp_clear, step_clear},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, step_iternext},
    {Py_am_await, PyObject_SelfIter},
    {Py_am_send, step_send},
    {Py_tp_methods, step_methods},
    {0, NULL},
};

static PyType_Spec step_spec = {
    .name = "supervm_rt.store.feed._pages.Step",
    .basicsize = sizeof(step_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = step_slots,
};

/* ---- Pages ---------------------------------------------------------------------------------------------------------------- */

static module_state *state_of(pages_object *self)
{
    PyObject *module = PyType_GetModuleByDef(Py_TYPE(self), &definition);
    return module == NULL ? NULL : PyModule_GetState(module);
}

static PyObject *pages_new(PyTypeObject *type, PyObject *arguments, PyObject *named)
{
    pages_object *self = (pages_object *)type->tp_alloc(type, 0);
    if (self != NULL && (self->page = PyList_New(0)) == NULL)
        Py_CLEAR(self);
    return (PyObject *)self;
}

static PyObject *pages_anext(PyObject *object)
{
    pages_object *self = (pages_object *)object;
    int ready = at_hand(self);
    if (ready < 0)
        return NULL;
    step_object *step = (step_object *)self->spare;
    if (ready > 0 && step != NULL && Py_REFCNT(step) == 1 && step->pages == NULL) {
        step->pages = (pages_object *)Py_NewRef(self);
        return Py_NewRef(step);
    }
    module_state *state = state_of(self);
    if (state == NULL)
        return NULL;
    if (ready == 0)
        return PyObject_CallMethodNoArgs(object, state->advance);
    step = (step_object *)state->step->tp_alloc(state->step, 0);
    if (step == NULL)
        return NULL;
    step->pages = (pages_object *)Py_NewRef(self);
    Py_XSETREF(self->spare, Py_NewRef(step));
    return (PyObject *)step;
}

static int pages_traverse(PyObject *object, visitproc visit, void *arg)
{
    pages_object *self = (pages_object *)object;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->page);
    Py_VISIT(self->spare);
    return 0;
}

static int pages_clear(PyObject *object)
{
    pages_object *self = (pages_object *)object;
    Py_CLEAR(self->page);
    Py_CLEAR(self->spare);
    return 0;
}

static void pages_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    pages_clear(object);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyMemberDef pages_members[] = {
    {"_page", T_OBJECT_EX, offsetof(pages_object, page), 0, "The page: a list."},
    {"_next", T_PYSSIZET, offsetof(pages_object, next), 0, "Which of its events is next."},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot pages_slots[] = {
    {Py_tp_doc, "Gives the events of one page after another. A subclass has a coroutine method advance() for the next page."},
    {Py_tp_new, pages_new},
    {Py_tp_dealloc, pages_dealloc},
    {Py_tp_traverse, pages_traverse},
    {Py_tp_clear, pages_clear},
    {Py_tp_members, pages_members},
    {Py_am_aiter, PyObject_SelfIter},
    {Py_am_anext, pages_anext},
    {0, NULL},
};

static PyType_Spec pages_spec = {
    .name = "supervm_rt.store.feed._pages.Pages",
    .basicsize = sizeof(pages_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = pages_slots,
};

/* ---- the module ----------------------------------------------------------------------------------------------------------- */

static int execute(PyObject *module)
{
    module_state *state = PyModule_GetState(module);
    state->advance = PyUnicode_InternFromString("_advance");
    state->step = (PyTypeObject *)PyType_FromModuleAndSpec(module, &step_spec, NULL);
    if (state->advance == NULL || state->step == NULL)
        return -1;
    PyObject *pages = PyType_FromModuleAndSpec(module, &pages_spec, NULL);
    if (pages == NULL)
        return -1;
    int added = PyModule_AddType(module, (PyTypeObject *)pages);
    Py_DECREF(pages);
    return added;
}

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
    module_state *state = PyModule_GetState(module);
    Py_VISIT(state->step);
    Py_VISIT(state->advance);
    return 0;
}

static int module_clear(PyObject *module)
{
    module_state *state = PyModule_GetState(module);
    Py_CLEAR(state->step);
    Py_CLEAR(state->advance);
    return 0;
}

static void module_free(void *module)
{
    module_clear(module);
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, execute},
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "supervm_rt.store.feed._pages",
    .m_doc = "The compiled part of a subscription.",
    .m_size = sizeof(module_state),
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

__attribute__((visibility("default"))) PyMODINIT_FUNC PyInit__pages(void);

PyMODINIT_FUNC PyInit__pages(void)
{
    return PyModuleDef_Init(&definition);
}
