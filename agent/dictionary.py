"""What the standard calls the parts of a message.

Secret: hl7apy, its tables and their spelling. It holds the names of fields and of data types for each version, and no
names of segments: those stand here (HL7 v2.8.2, appendix A; older ones from the chapter that had them).
Promise: a name for people, or an empty string; no version, no segment and no number raises. Nothing of hl7apy is
imported before the first name is asked for.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any, Final

_VERSIONS: Final = ("2.1", "2.2", "2.3", "2.3.1", "2.4", "2.5", "2.5.1", "2.6", "2.7", "2.8", "2.8.1", "2.8.2")
_UNSAID: Final = "2.5.1"  # the version most messages are in
_VERSION: Final = re.compile(r"[vV]?(\d{1,2}(?:\.\d{1,2}){1,2})(?!\d)", re.ASCII)
_VARIES: Final = "varies"  # hl7apy's data type of a field whose type another field names

_ACRONYMS: Final = (
    "API AS400 BP CCL CLIA CMS CPT CPU DEA DMV DNR DOB DRG EDI EI GMDN HCFA HD HL7 ID III INN IRB ISBT ISO IV JR LOA MD"
    " NDC NPI OCE OID PCA PCCL POA PRN PSRO RX SSN UB82 UB92 UID UPIN UR URL UTC VAT VIP ZIP"
)
_SMALL: Final = "a an and as at by for from in is of on or that the to was when who will with"
_UPPER: Final = frozenset(_ACRONYMS.split())
_LOWER: Final = frozenset(_SMALL.split())
_SPELT: Final = {"IDS": "IDs", "HL7S": "HL7s"}

_SEGMENTS: Final = """\
ABS Abstract
ACC Accident
ADD Addendum
ADJ Adjustment
AFF Professional Affiliation
AIG Appointment Information - General Resource
AIL Appointment Information - Location Resource
AIP Appointment Information - Personnel Resource
AIS Appointment Information - Service
AL1 Patient Allergy Information
APR Appointment Preferences
ARQ Appointment Request
ARV Access Restriction
AUT Authorization Information
BHS Batch Header
BLC Blood Code
BLG Billing
BPO Blood Product Order
BPX Blood Product Dispense Status
BTS Batch Trailer
BTX Blood Product Transfusion/Disposition
BUI Blood Unit Information
CDM Charge Description Master
CDO Cumulative Dosage
CER Certificate Detail
CM0 Clinical Study Master
CM1 Clinical Study Phase Master
CM2 Clinical Study Schedule Master
CNS Clear Notification
CON Consent
CSP Clinical Study Phase
CSR Clinical Study Registration
CSS Clinical Study Data Schedule
CTD Contact Data
CTI Clinical Trial Identification
DB1 Disability
DG1 Diagnosis
DMI DRG Master File Information
DON Donation
DPS Diagnosis and Procedure Code
DRG Diagnosis Related Group
DSC Continuation Pointer
DSP Display Data
ECD Equipment Command
ECR Equipment Command Response
EDU Educational Detail
EQL Embedded Query Language
EQP Equipment Log/Service
EQU Equipment Detail
ERQ Event Replay Query
ERR Error
EVN Event Type
FAC Facility
FHS File Header
FT1 Financial Transaction
FTS File Trailer
GOL Goal Detail
GP1 Grouping/Reimbursement - Visit
GP2 Grouping/Reimbursement - Procedure Line Item
GT1 Guarantor
IAM Patient Adverse Reaction Information
IAR Allergy Reaction
IIM Inventory Item Master
ILT Material Lot
IN1 Insurance
IN2 Insurance Additional Information
IN3 Insurance Additional Information, Certification
INV Inventory Detail
IPC Imaging Procedure Control
IPR Invoice Processing Results
ISD Interaction Status Detail
ITM Material Item
IVC Invoice
IVT Material Location
LAN Language Detail
LCC Location Charge Code
LCH Location Characteristic
LDP Location Department
LOC Location Identification
LRL Location Relationship
MCP Master File Coverage
MFA Master File Acknowledgment
MFE Master File Entry
MFI Master File Identification
MRG Merge Patient Information
MSA Message Acknowledgment
MSH Message Header
NCK System Clock
NDS Notification Detail
NK1 Next of Kin / Associated Parties
NPU Bed Status Update
NSC Application Status Change
NST Application Control-Level Statistics
NTE Notes and Comments
OBR Observation Request
OBX Observation/Result
ODS Dietary Orders, Supplements and Preferences
ODT Diet Tray Instructions
OM1 General Observation
OM2 Numeric Observation
OM3 Categorical Service/Test/Observation
OM4 Observations that Require Specimens
OM5 Observation Batteries
OM6 Observations Calculated from Others
OM7 Additional Basic Attributes
OMC Supporting Clinical Information
ORC Common Order
ORG Practitioner Organization Unit
ORO Order Other
OVR Override
PAC Shipment Package
PCE Patient Charge Cost Center Exceptions
PCR Possible Causal Relationship
PD1 Patient Additional Demographic
PDA Patient Death and Autopsy
PDC Product Detail Country
PEO Product Experience Observation
PES Product Experience Sender
PID Patient Identification
PKG Item Packaging
PM1 Payer Master File
PMT Payment Information
PR1 Procedures
PRA Practitioner Detail
PRB Problem Detail
PRC Pricing
PRD Provider Data
PRT Participation Information
PSG Product/Service Group
PSH Product Summary Header
PSL Product/Service Line Item
PSS Product/Service Section
PTH Pathway
PV1 Patient Visit
PV2 Patient Visit - Additional Information
PYE Payee Information
QAK Query Acknowledgment
QID Query Identification
QPD Query Parameter Definition
QRD Original-Style Query Definition
QRF Original-Style Query Filter
QRI Query Response Instance
RCP Response Control Parameter
RDF Table Row Definition
RDT Table Row Data
REL Clinical Relationship
RF1 Referral Information
RFI Request for Information
RGS Resource Group
RMI Risk Management Incident
ROL Role
RQ1 Requisition Detail-1
RQD Requisition Detail
RX1 Pharmacy Order
RXA Pharmacy/Treatment Administration
RXC Pharmacy/Treatment Component Order
RXD Pharmacy/Treatment Dispense
RXE Pharmacy/Treatment Encoded Order
RXG Pharmacy/Treatment Give
RXO Pharmacy/Treatment Order
RXR Pharmacy/Treatment Route
RXV Pharmacy/Treatment Infusion
SAC Specimen Container Detail
SCD Anti-Microbial Cycle Data
SCH Scheduling Activity Information
SCP Sterilizer Configuration
SDD Sterilization Device Data
SFT Software
SGH Segment Group Header
SGT Segment Group Trailer
SHP Shipment
SID Substance Identifier
SLT Sterilization Lot
SPM Specimen
SPR Stored Procedure Request Definition
STF Staff Identification
STZ Sterilization Parameter
TCC Test Code Configuration
TCD Test Code Detail
TQ1 Timing/Quantity
TQ2 Timing/Quantity Relationship
TXA Transcription Document Header
UAC User Authentication Credential
UB1 UB82 Data
UB2 UB92 Data
URD Results/Update Definition
URS Unsolicited Selection
VAR Variance
VND Purchasing Vendor
VTQ Virtual Table Query Request
"""
_SEGMENT_NAMES: Final = dict(line.split(" ", 1) for line in _SEGMENTS.splitlines())


def segment_name(version: str, segment: str) -> str:
    """`Patient Identification` for PID; empty for Z-segments and for those that this version does not have."""
    return _SEGMENT_NAMES.get(segment, "") if segment in _table(_nearest(version), "SEGMENTS") else ""


@lru_cache(maxsize=2048)  # bounded: what is asked for comes out of messages
def field_name(version: str, segment: str, field: int) -> str:
    """`Patient Identifier List` for PID-3."""
    return _spelt(_field(version, segment, field)[3], segment)


@lru_cache(maxsize=4096)
def component_name(version: str, segment: str, field: int, component: int, *, data_type: str = "") -> str:
    """`ID Number` for PID-3.1. `data_type`: that of a field whose type another field names, as OBX-2 does for OBX-5."""
    return _spelt(_component(version, segment, field, component, data_type)[3], segment)


@lru_cache(maxsize=4096)
def subcomponent_name(
    version: str, segment: str, field: int, component: int, subcomponent: int, *, data_type: str = ""
) -> str:
    """`Surname` for PID-5.1.1."""
    parent = _component(version, segment, field, component, data_type)
    return _spelt(_child(parent[1], subcomponent)[3], segment)


@lru_cache(maxsize=512)
def is_set_id(version: str, segment: str) -> bool:
    """Whether field 1 of this segment only counts the segments (data type SI)."""
    return bool(_field(version, segment, 1)[2] == "SI")


@lru_cache(maxsize=512)
def is_data_type(version: str, name: str) -> bool:
    """Whether this version has a data type of that name: what OBX-2 may say (table 0125)."""
    nearest = _nearest(version)
    # A composite one is listed by its name and a primitive one is used by some component.
    return name in _table(nearest, "DATATYPES_STRUCTS") or name in _primitives(nearest)


_Reference = tuple[Any, ...]  # hl7apy's: (kind, children, data type, long name, …)
_NOTHING: Final[_Reference] = ("leaf", None, "", "")


def _field(version: str, segment: str, field: int) -> _Reference:
    return _reference(_table(_nearest(version), "FIELDS").get(f"{segment}_{field}"))


def _component(version: str, segment: str, field: int, component: int, data_type: str) -> _Reference:
    found = _field(version, segment, field)
    children = found[1]
    if found[2] == _VARIES and data_type:
        children = _table(_nearest(version), "DATATYPES_STRUCTS").get(data_type)
    return _child(children, component)


def _child(children: object, number: int) -> _Reference:
    if not isinstance(children, tuple):
        return _NOTHING
    # by its own number, for hl7apy leaves withdrawn ones out
    return next((_reference(child[1]) for child in children if str(child[0]).endswith(f"_{number}")), _NOTHING)


def _reference(found: object) -> _Reference:
    return tuple(found) if isinstance(found, list | tuple) and len(found) >= 4 else _NOTHING


@cache  # as many as there are versions
def _primitives(nearest: str) -> frozenset[str]:
    fields, parts = _table(nearest, "FIELDS").values(), _table(nearest, "DATATYPES").values()
    return frozenset(str(_reference(found)[2]) for found in (*fields, *parts)) - {_VARIES, ""}


@cache  # as many as there are versions and tables
def _table(nearest: str, name: str) -> Mapping[str, Any]:
    try:
        from hl7apy import load_library  # late: only who looks at a message waits for it
        from hl7apy.exceptions import HL7apyException
    except ImportError:  # a message without names is better than none
        return {}
    try:
        table = getattr(load_library(nearest), name)
    except (HL7apyException, ImportError, AttributeError):
        return {}
    return table if isinstance(table, Mapping) else {}


@lru_cache(maxsize=64)
def _nearest(version: str) -> str:
    """The version to look in for MSH-12: itself, else the newest before it, else the oldest."""
    said = _VERSION.match(version.strip())
    if said is None:
        return _UNSAID
    at = bisect_right([_numbers(known) for known in _VERSIONS], _numbers(said[1]))
    return _VERSIONS[max(at - 1, 0)]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def _spelt(long_name: object, segment: str) -> str:
    """`Date/Time of Message` from DATE_TIME_OF_MESSAGE, and `Set ID` from SET_ID_PID."""
    if not isinstance(long_name, str):
        return ""
    words = re.sub(r" {2,}", "", long_name).replace(" ", "_").strip("_").split("_")  # some were broken at a line end
    if len(words) > 1 and words[-1] == segment:
        words.pop()
    text = " ".join(_word(word, segment, first=number == 0) for number, word in enumerate(words))
    return text.replace("Date Time", "Date/Time").replace(" S ", "'s ")


def _word(word: str, segment: str, *, first: bool) -> str:
    if word in _SPELT:
        return _SPELT[word]
    if word in _UPPER or word == segment or (word in _SEGMENT_NAMES and any(map(str.isdigit, word))):
        return word
    return word.lower() if word.lower() in _LOWER and not first else word.capitalize()
